"""Who may ask, and how much: tenants, API keys, rates and bounds."""
