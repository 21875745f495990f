"""Linkage: from co-occurring sets to structures."""
