package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"unicode/utf8"
)

// origin is what the first line of a log has for a hash before it.
var origin = strings.Repeat("0", 2*sha256.Size)

// Decode reads a line without its newline. It checks the line alone, not its place
// in the chain.
func Decode(text []byte) (Line, error) {
	var l Line
	if len(text) > maxLine {
		return Line{}, fmt.Errorf("it has %d bytes, more than %d", len(text), maxLine)
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return Line{}, fmt.Errorf("it is not an event: %w", err)
	}
	switch {
	case l.Seq < 1:
		return Line{}, errors.New("it has no number")
	case !isHash(l.Prev):
		return Line{}, errors.New("it has no hash of the line before")
	case l.Time.IsZero():
		return Line{}, errors.New("it has no time")
	case !isKind(l.Kind):
		return Line{}, errors.New("it has no kind")
	}
	return l, nil
}

// encode is the inverse of Decode.
func encode(l Line) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func hashOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func isHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

// isKind tells whether k is words of lower-case letters, joined by points.
func isKind(k Kind) bool {
	if len(k) > 64 || !strings.Contains(string(k), ".") {
		return false
	}
	for word := range strings.SplitSeq(string(k), ".") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz_") != "" {
			return false
		}
	}
	return true
}

// checked returns e as it can be recorded, with a copy of its fields.
func checked(e Event) (Event, error) {
	if !isKind(e.Kind) || strings.HasPrefix(string(e.Kind), "log.") {
		return e, fmt.Errorf("%w: its kind is %q: use one of package audit", ErrEvent, e.Kind)
	}
	if len(e.Says) > maxSays {
		end := maxSays
		for !utf8.RuneStart(e.Says[end]) {
			end--
		}
		e.Says = e.Says[:end] + " (cut off)"
	}
	e.Fields = maps.Clone(e.Fields)
	size := len(e.Vault) + len(e.Item) + len(e.Point) + len(e.Key) + len(e.Fingerprint) + len(e.By) + len(e.Outcome) + len(e.Says)
	for k, v := range e.Fields {
		size += len(k) + len(v)
	}
	if size > maxEvent || len(e.Fields) > 256 {
		return e, fmt.Errorf("%w: it has %d bytes in %d fields, more than %d in 256", ErrEvent, size, len(e.Fields), maxEvent)
	}
	return e, nil
}

// text is a line as it is in a file.
type text struct {
	bytes []byte // without the newline; valid until the next line is read; nil if it is too long
	hash  string
	size  int64 // with the newline
	whole bool  // it ends with a newline
}

// lines reads a file line by line in bounded memory.
type lines struct {
	r   *bufio.Reader
	buf []byte
}

func newLines(r io.Reader) *lines { return &lines{r: bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line, and io.EOF after the last.
func (l *lines) next() (text, error) {
	l.buf = l.buf[:0]
	hash, t := sha256.New(), text{}
	for {
		part, err := l.r.ReadSlice('\n')
		t.size += int64(len(part))
		if err == nil {
			part, t.whole = part[:len(part)-1], true
		}
		hash.Write(part)
		if len(l.buf)+len(part) <= maxLine+1 {
			l.buf = append(l.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return text{}, err
		case t.size == 0:
			return text{}, io.EOF
		}
		t.hash = hex.EncodeToString(hash.Sum(nil))
		length := t.size
		if t.whole {
			length--
		}
		if length <= maxLine {
			t.bytes = l.buf
		}
		return t, nil
	}
}

// decode reads the event of a line.
func (t text) decode() (Line, error) {
	switch {
	case t.bytes == nil && t.size > maxLine:
		return Line{}, fmt.Errorf("it has %d bytes, more than %d", t.size, maxLine)
	case !t.whole:
		return Line{}, errors.New("it breaks off")
	}
	return Decode(t.bytes)
}
