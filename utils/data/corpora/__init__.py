"""What readers of corpora build on: releases, tables and their columns."""
