"""How to choose: policies, the keys that workers ask with, and what is written into a worker's environment."""
