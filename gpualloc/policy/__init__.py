"""What the user prefers: the policies, and the rules that a policy turns on and off."""
