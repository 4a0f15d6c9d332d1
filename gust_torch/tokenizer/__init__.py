"""Fields to tokens: the tokenizer, its vocabulary and the token file."""
