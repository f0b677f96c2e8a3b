"""Steps that run once before training: unpack and check a downloaded set, write packs, import phone photos.

Import from its modules: `unpacking.unpack_set`, `manifest.check_root`, `packs.write_pack` and `packs.copy_packs`,
`phone_photos.import_phone_photos`, `parse_exif` and `project_to_zone`.
"""
