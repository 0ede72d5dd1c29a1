"""`hvdfilter launch COMMAND`: a launcher around a launcher, which leaves nothing behind."""
