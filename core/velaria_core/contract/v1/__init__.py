"""Version 1 of the messages: the .proto files and the modules generated from them."""
