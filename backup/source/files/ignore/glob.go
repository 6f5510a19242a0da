package ignore

import "strings"

// token is one step of a compiled glob.
type token struct {
	op   op
	char byte
	set  *set
}

type op uint8

const (
	one     op = iota // char
	oneOf             // a byte of set
	run               // any bytes, none of them "/" in a path
	deep              // any bytes
	deepDir           // nothing, or any bytes up to and including a "/"
)

// set is a set of bytes.
type set [4]uint64

func (s *set) add(lo, hi byte) {
	for c := int(lo); c <= int(hi); c++ {
		s[c>>6] |= 1 << (c & 63)
	}
}

func (s *set) remove(c byte)   { s[c>>6] &^= 1 << (c & 63) }
func (s *set) has(c byte) bool { return s[c>>6]>>(c&63)&1 != 0 }

func (s *set) invert() {
	for i := range s {
		s[i] = ^s[i]
	}
}

// compile returns the tokens of a glob; false if it is malformed and therefore
// matches nothing. In a path, "/" is matched only by itself and by "**".
func compile(glob string, path bool) ([]token, bool) {
	var tokens []token
	for i := 0; i < len(glob); {
		switch c := glob[i]; c {
		case '\\':
			if i+1 == len(glob) {
				return nil, false
			}
			tokens = append(tokens, token{op: one, char: glob[i+1]})
			i += 2
		case '?':
			s := &set{}
			s.invert()
			tokens = append(tokens, token{op: oneOf, set: without(s, path)})
			i++
		case '*':
			t, n := stars(glob, i, path)
			tokens = append(tokens, t)
			i += n
		case '[':
			s, n := bracket(glob[i:])
			if n == 0 {
				return nil, false
			}
			tokens = append(tokens, token{op: oneOf, set: without(s, path)})
			i += n
		default:
			tokens = append(tokens, token{op: one, char: c})
			i++
		}
	}
	return tokens, true
}

func without(s *set, path bool) *set {
	if path {
		s.remove('/')
	}
	return s
}

// stars returns the token of the asterisks at glob[i] and their number, with the
// slash that belongs to them.
func stars(glob string, i int, path bool) (token, int) {
	rest := strings.TrimLeft(glob[i:], "*")
	n := len(glob) - i - len(rest)
	if path && n > 1 && (i == 0 || glob[i-1] == '/') {
		switch {
		case strings.HasPrefix(rest, "/"):
			return token{op: deepDir}, n + 1
		case rest == "" || strings.HasPrefix(rest, `\/`):
			return token{op: deep}, n
		}
	}
	if path {
		return token{op: run}, n
	}
	return token{op: deep}, n
}

// match matches all of text, in a time of at most len(tokens) * len(text): it
// needs to go back only to the last run, and when that cannot grow, to the last
// deep one, because what came before them leaves no more to choose.
func match(tokens []token, text string) bool {
	var (
		t, i         int
		runT, runI   = -1, 0 // the last run: its token and how far it reaches
		deepT, deepI = -1, 0 // the last deep or deepDir
	)
	for {
		if t < len(tokens) && tokens[t].op >= run {
			if tokens[t].op == run {
				runT, runI = t, i
			} else {
				deepT, deepI, runT = t, i, -1
			}
			t++
			continue
		}
		if t == len(tokens) && i == len(text) {
			return true
		}
		if t < len(tokens) && i < len(text) && tokens[t].takes(text[i]) {
			t, i = t+1, i+1
			continue
		}
		if runT >= 0 && runI < len(text) && text[runI] != '/' {
			runI++
			t, i = runT+1, runI
			continue
		}
		if deepT < 0 {
			return false
		}
		n := next(tokens[deepT].op, text[deepI:])
		if n == 0 {
			return false
		}
		deepI += n
		t, i, runT = deepT+1, deepI, -1
	}
}

// next returns how many more bytes of rest a deep or deepDir can take at least; 0
// if none.
func next(o op, rest string) int {
	if o == deepDir {
		return strings.IndexByte(rest, '/') + 1
	}
	return min(1, len(rest))
}

func (t *token) takes(c byte) bool {
	if t.op == one {
		return t.char == c
	}
	return t.set.has(c)
}
