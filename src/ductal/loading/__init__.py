"""Files that others may have written, read so that they stay data: networks, weights, records, tables."""
