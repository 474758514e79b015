"""Worker processes: started, watched, ended with their whole tree."""
