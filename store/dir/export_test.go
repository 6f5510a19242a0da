package dir

// OpenLinking opens the store as on a file system that cannot rename without
// replacing.
func OpenLinking(root string) (*Store, error) {
	s, err := Open(root)
	if err == nil {
		s.place = link
	}
	return s, err
}
