"""What several test modules share: scripted servers and client factories."""
