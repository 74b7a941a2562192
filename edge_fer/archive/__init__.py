"""Archives of videos: each video one task, each task two Parquet files, on one machine or on many."""
