"""What holds for every test: hypothesis sets no deadline, since disks and slow machines have none."""

from hypothesis import settings

settings.register_profile("lakewriter", deadline=None)
settings.load_profile("lakewriter")
