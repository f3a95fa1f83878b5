"""Building blocks that know no configuration: masks, embeddings, attention, recurrence."""
