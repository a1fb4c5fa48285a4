"""Object stores through obstore: any ``FsspecStore``, and buckets that cachefs connects to."""
