"""Results as HL7 v2.5.1 messages: whose they are, what they say, how it is encoded, and how answers are read."""
