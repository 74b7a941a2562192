"""What ``flash.py`` does: boards -> files of the boot partition -> a card. Python's standard library alone."""
