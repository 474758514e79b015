"""Methods that ask for points and are told evaluations, one file each."""
