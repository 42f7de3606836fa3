"""compile(): a trained torch module becomes a bundle; and what can be said of one before it runs."""
