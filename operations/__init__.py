"""What can be asked of the loop, as frozen values: it prints nothing and draws nothing."""
