package durable

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
)

// A sealed file is a JSON object whose last member is a checksum, CRC-32C, over the rest:
//
//	{"docs":{...},"checksum":"1f2e3d4c"}
//
// so that a changed byte is noticed where JSON would not show it. It is no guard against
// anybody who may write to the file.
const (
	sealHead = `,"checksum":"`
	sealTail = `"}`
	sealSize = len(sealHead) + 8 + len(sealTail)
)

// WriteSealed replaces the file at path, as WriteFile does, with a JSON object and its
// checksum.
func WriteSealed(path string, object []byte) error {
	object = bytes.TrimSpace(object)
	if n := len(object) - 1; n > 0 && len(bytes.TrimSpace(object[1:n])) > 0 { // an empty one has nothing to guard
		object = fmt.Appendf(nil, "%s%s%08x%s", object[:n], sealHead, sum(object), sealTail)
	}
	return WriteFile(path, object)
}

// ReadSealed returns the JSON object that a file was written with. fs.ErrNotExist if there
// is none. One that is damaged is set aside, and ErrDamaged if it is; one without a checksum is
// taken as it is. Errors are Faults.
func ReadSealed(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, &Fault{path, err}
	}
	object, why := unseal(bytes.TrimSpace(raw))
	if why == "" {
		return object, nil
	}
	if err := SetAside(path); err != nil {
		return nil, &Fault{path, fmt.Errorf("%s is wrong, %s: %w", path, why, err)}
	}
	return nil, &Fault{path, fmt.Errorf("%s is %w, and was set aside: %s", path, ErrDamaged, why)}
}

// unseal returns the object without its checksum, or why it is damaged.
func unseal(text []byte) (object []byte, why string) {
	if at := len(text) - sealSize; at > 0 {
		head, said, tail := text[at:at+len(sealHead)], text[at+len(sealHead):len(text)-len(sealTail)], text[len(text)-len(sealTail):]
		switch alike := same(head, sealHead) + same(tail, sealTail); {
		case alike == len(sealHead)+len(sealTail):
			text = append(text[:at:at], '}')
			if fmt.Sprintf("%08x", sum(text)) != string(said) {
				return nil, "its checksum is wrong"
			}
		case alike > (len(sealHead)+len(sealTail))*2/3: // it was one
			return nil, "its checksum is not readable"
		}
	}
	if len(text) == 0 || text[0] != '{' || !json.Valid(text) {
		return nil, "it is no JSON object"
	}
	return text, ""
}

// same counts the bytes that are as they should be.
func same(have []byte, want string) (n int) {
	for i := range have {
		if have[i] == want[i] {
			n++
		}
	}
	return n
}

func sum(object []byte) uint32 { return crc32.Checksum(object, crc32.MakeTable(crc32.Castagnoli)) }
