"""What a person does to a result: verdict, retry, delivery; each with its audit row."""
