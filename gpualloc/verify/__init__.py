"""Does every running worker see exactly its GPUs? Asks Docker what the containers were given, and looks inside them."""
