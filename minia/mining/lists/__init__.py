"""Lists of items: bags of words, co-occurring sets and structures, in memory and as text."""
