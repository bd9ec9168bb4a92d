UPDATE about SET commits = commits + 1 RETURNING commits;
