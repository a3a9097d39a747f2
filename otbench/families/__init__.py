"""What several tasks share: closed forms, toys, funnels, the globe, probes."""
