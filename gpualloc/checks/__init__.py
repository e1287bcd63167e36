"""What can be wrong between a compose file and the GPUs it is to run on, one idea a module."""
