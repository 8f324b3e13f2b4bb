"""Which files, what is done already, who does which: datasets of any size over `codec`."""
