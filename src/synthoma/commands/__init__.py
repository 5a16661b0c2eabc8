"""What each command does, over whole data sets, as a function: the command line and Python call the same."""
