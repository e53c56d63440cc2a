"""The rows of messages: planned with a result, held back, sent, escalated, put together in summaries."""
