"""What several tasks share: closed forms, toy measures, Wasserstein-1 funnels, points on the globe."""
