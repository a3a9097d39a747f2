"""Reports: tables and pictures from recorded rows alone."""
