package control

import (
	"bytes"
	"encoding/json"
	"io"
	"time"
	"unicode/utf8"
)

// A path is any bytes; JSON strings are UTF-8. So a path that is not UTF-8 has a
// second field beside it: "path" can be shown, and "path_raw" (base64) is exact.
// The Go fields hold the exact bytes.

// PointsRequest asks which points there are.
type PointsRequest struct {
	Item string // "" for all items
	Last int    // only the newest so many of each item, MaxLast at the most; 0 for all
}

// MaxLast is how many points of an item can be asked for as the newest ones. Who wants
// more takes all.
const MaxLast = 10_000

// EntriesRequest asks what a point holds.
type EntriesRequest struct {
	Item      string
	Point     string
	Path      string // "" for the top; a file lists itself
	Recursive bool
}

// Entry is a file, directory or other node in a point.
type Entry struct {
	Path     string    `json:"path"` // absolute in the point, separated by "/"
	Type     string    `json:"type"` // "file", "dir", "symlink", "fifo", "char device", "block device"
	Mode     uint32    `json:"mode"` // as in st_mode & 07777
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	User     string    `json:"user,omitempty"`
	Group    string    `json:"group,omitempty"`
	Size     int64     `json:"size"`
	MTime    time.Time `json:"mtime"`
	Target   string    `json:"target,omitempty"`   // of a symlink
	Changing bool      `json:"changing,omitempty"` // it would not hold still
}

// DiffRequest asks what differs between two points of an item.
type DiffRequest struct {
	Item string
	From string
	To   string
	Path string // "" for all
}

// DiffEntry is one difference.
type DiffEntry struct {
	Path    string   `json:"path"`
	Change  Change   `json:"change"`
	Type    string   `json:"type"`           // as in Entry; what it is now, or was if it is removed
	What    []string `json:"what,omitempty"` // of a changed entry: "content", "type", "mode", "owner", "mtime", "xattrs", "target"
	OldSize int64    `json:"old_size"`
	NewSize int64    `json:"new_size"`
}

// Change is how an entry differs.
type Change string

// The changes.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
)

// ContentRequest asks for the content of one file.
type ContentRequest struct {
	Item  string
	Point string
	Path  string
}

// rawPath returns s if it is not UTF-8, and nil otherwise.
func rawPath(s string) []byte {
	if utf8.ValidString(s) {
		return nil
	}
	return []byte(s)
}

// exactPath returns raw if there is one, and shown otherwise.
func exactPath(shown string, raw []byte) string {
	if raw != nil {
		return string(raw)
	}
	return shown
}

// decodeStrict reads one JSON value, the whole of r, with no unknown field.
func decodeStrict(r io.Reader, v any) error {
	dec := json.NewDecoder(r)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		if err == nil {
			return errTrailing
		}
		return err
	}
	return nil
}

// MarshalJSON writes the entry with its exact path.
func (e Entry) MarshalJSON() ([]byte, error) {
	type plain Entry
	return json.Marshal(struct {
		plain
		PathRaw   []byte `json:"path_raw,omitempty"`
		TargetRaw []byte `json:"target_raw,omitempty"`
	}{plain(e), rawPath(e.Path), rawPath(e.Target)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *Entry) UnmarshalJSON(b []byte) error {
	type plain Entry
	var v struct {
		plain
		PathRaw   []byte `json:"path_raw"`
		TargetRaw []byte `json:"target_raw"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*e = Entry(v.plain)
	e.Path, e.Target = exactPath(e.Path, v.PathRaw), exactPath(e.Target, v.TargetRaw)
	return nil
}

// MarshalJSON writes the difference with its exact path.
func (e DiffEntry) MarshalJSON() ([]byte, error) {
	type plain DiffEntry
	return json.Marshal(struct {
		plain
		PathRaw []byte `json:"path_raw,omitempty"`
	}{plain(e), rawPath(e.Path)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *DiffEntry) UnmarshalJSON(b []byte) error {
	type plain DiffEntry
	var v struct {
		plain
		PathRaw []byte `json:"path_raw"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*e = DiffEntry(v.plain)
	e.Path = exactPath(e.Path, v.PathRaw)
	return nil
}

// MarshalJSON writes the request with its exact paths.
func (r RestoreRequest) MarshalJSON() ([]byte, error) {
	type plain RestoreRequest
	v := struct {
		plain
		TargetRaw []byte   `json:"target_raw,omitempty"`
		PathsRaw  [][]byte `json:"paths_raw,omitempty"`
	}{plain: plain(r), TargetRaw: rawPath(r.Target)}
	for i, p := range r.Paths {
		if rawPath(p) != nil && v.PathsRaw == nil {
			v.PathsRaw = make([][]byte, len(r.Paths))
		}
		if v.PathsRaw != nil {
			v.PathsRaw[i] = rawPath(p)
		}
	}
	return json.Marshal(v)
}

// UnmarshalJSON reads what MarshalJSON writes, and refuses unknown fields. The
// elements of paths_raw stand for those of paths, null where it is exact already.
func (r *RestoreRequest) UnmarshalJSON(b []byte) error {
	type plain RestoreRequest
	var v struct {
		plain
		TargetRaw []byte   `json:"target_raw"`
		PathsRaw  [][]byte `json:"paths_raw"`
	}
	if err := decodeStrict(bytes.NewReader(b), &v); err != nil {
		return err
	}
	if v.PathsRaw != nil && len(v.PathsRaw) != len(v.Paths) {
		return errPathsRaw
	}
	*r = RestoreRequest(v.plain)
	r.Target = exactPath(r.Target, v.TargetRaw)
	for i, raw := range v.PathsRaw {
		r.Paths[i] = exactPath(r.Paths[i], raw)
	}
	return nil
}
