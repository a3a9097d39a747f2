"""Data sets and the user's own points: found, checked, downloaded, decoded."""
