"""What running workers use of their devices, against what they asked for."""
