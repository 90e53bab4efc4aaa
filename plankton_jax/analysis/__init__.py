"""What is read off a predictions table: tables and figures. Runs no network."""
