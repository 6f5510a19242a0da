package ignore

import "strings"

// bracket parses the bracket expression at the beginning of s: its bytes and its
// length, 0 if it is malformed.
func bracket(s string) (*set, int) {
	found := &set{}
	i := 1
	negative := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negative {
		i++
	}
	var prev byte // the byte a range may begin with; 0 for none
	for first := true; ; first = false {
		if i >= len(s) {
			return nil, 0
		}
		if s[i] == ']' && !first {
			break
		}
		if s[i] == '-' && prev != 0 && i+1 < len(s) && s[i+1] != ']' {
			hi, n := escaped(s[i+1:])
			if n == 0 {
				return nil, 0
			}
			found.add(prev, hi)
			prev = 0
			i += 1 + n
			continue
		}
		if strings.HasPrefix(s[i:], "[:") {
			n, ok := class(found, s[i:])
			if !ok {
				return nil, 0
			}
			if n > 0 {
				prev = 0
				i += n
				continue
			}
		}
		c, n := escaped(s[i:])
		if n == 0 {
			return nil, 0
		}
		found.add(c, c)
		prev = c
		i += n
	}
	if negative {
		found.invert()
	}
	return found, i + 1
}

// escaped returns the byte at the beginning of s, which a backslash may precede,
// and how many bytes that took; 0 if nothing follows the backslash.
func escaped(s string) (byte, int) {
	if s[0] != '\\' {
		return s[0], 1
	}
	if len(s) == 1 {
		return 0, 0
	}
	return s[1], 2
}

// class adds the class "[:name:]" at the beginning of s and returns its length; 0
// if it is no class and the bracket stands for itself; false if it is malformed.
func class(found *set, s string) (int, bool) {
	end := strings.IndexByte(s[2:], ']')
	if end < 0 {
		return 0, false
	}
	name, ok := strings.CutSuffix(s[2:2+end], ":")
	if !ok {
		return 0, true
	}
	ranges, ok := ranges(name)
	if !ok {
		return 0, false
	}
	for i := 0; i < len(ranges); i += 2 {
		found.add(ranges[i], ranges[i+1])
	}
	return 2 + end + 1, true
}

// ranges returns the first and last bytes of the runs that make up a class, in
// ASCII. Space is what git takes it for.
func ranges(class string) (string, bool) {
	switch class {
	case "alnum":
		return "09AZaz", true
	case "alpha":
		return "AZaz", true
	case "blank":
		return "  \t\t", true
	case "cntrl":
		return "\x00\x1f\x7f\x7f", true
	case "digit":
		return "09", true
	case "graph":
		return "!~", true
	case "lower":
		return "az", true
	case "print":
		return " ~", true
	case "punct":
		return "!/:@[`{~", true
	case "space":
		return "  \t\n\r\r", true
	case "upper":
		return "AZ", true
	case "xdigit":
		return "09AFaf", true
	}
	return "", false
}
