"""Starting, watching and stopping processes, and the addresses that they listen on."""
