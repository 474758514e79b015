"""What every layer may use: errors, arrays, JSON, tables, optional packages."""
