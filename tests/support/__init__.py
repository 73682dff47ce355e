"""What several tests share: pictures, fakes, services, databases."""
