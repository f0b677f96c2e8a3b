"""What runs once before training: unpack and check downloaded sets, write packs, import photos of a phone.

Other rooms may import `unpacking.unpack_set`, `manifest.check_root`, `packs.write_pack` and `copy_packs`, and from
`phone_photos` `import_phone_photos`, `parse_exif` and `project_to_zone`. This room imports the core only.
"""
