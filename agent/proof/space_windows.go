package proof

import "golang.org/x/sys/windows"

// space returns how many bytes a folder has room for.
func space(dir string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var room uint64
	err = windows.GetDiskFreeSpaceEx(name, &room, nil, nil)
	return room, err
}
