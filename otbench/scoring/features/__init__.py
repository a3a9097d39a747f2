"""Features of images that Fréchet distances and perceptual distances are taken on."""
