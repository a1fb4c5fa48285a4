"""Looking inside: the files of results and layers, read without extracting them."""
