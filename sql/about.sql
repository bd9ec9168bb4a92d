SELECT version, commits, views FROM about;
