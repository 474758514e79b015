"""What people look at: pages, charts, figures, the live view of a store."""
