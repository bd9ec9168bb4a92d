UPDATE about SET views = $views;
