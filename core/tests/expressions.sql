-- One expression a line: as written and as printed from its tree, the engine must give the same value and type.
7 / 2
7 // 2
-7 // 2
7 % 3
-7 % 3
2 ** 3
2 ^ 3
-2 ^ 2
- - 3
7 & 3
7 | 8
~7
1 << 3
256 >> 2
xor(5, 3)
1 + 2 * 3 - 4
(1 + 2) * 3
7 - (2 - 1)
8 / (4 / 2)
10 % (7 % 4)
9223372036854775807
-9223372036854775808
170141183460469231731687303715884105727
1e3
1.50
1_000
12345678901234567890.123456789
true AND NOT false OR NULL
1 = 1.0
1 <> 2
1 != 2
NULL IS NULL
1 IS NOT NULL
1 IS DISTINCT FROM NULL
NULL IS NOT DISTINCT FROM NULL
true IS TRUE
NULL IS NOT TRUE
3 BETWEEN 1 AND 3
3 NOT BETWEEN 1 AND 2
2 IN (1, 2)
3 NOT IN (1, NULL)
2 IN [1, 2]
'a' || 'b' || 1
'ab' LIKE 'A%'
'ab' ILIKE 'A%'
'a_b' LIKE 'a!_b' ESCAPE '!'
'ab' NOT LIKE 'b%'
'ab' GLOB 'a*'
'ab' SIMILAR TO 'a.'
'ab' ~ 'a.'
'ab' !~ 'a.'
'ab' ~~ 'a%'
'ab' ^@ 'a'
'a' COLLATE NOCASE = 'A'
'it''s'
E'a\nb'
$$it's$$
$tag$ 'x' $tag$
'日本' || 'é'
''
DATE '2020-02-29' + 1
DATE '2020-03-01' - DATE '2020-02-01'
DATE '2020-01-31' + INTERVAL 1 MONTH
DATE '2020-01-31' + INTERVAL '1' MONTH
DATE '2020-01-31' + INTERVAL '1 month 2 days'
TIMESTAMP '2020-01-01' - INTERVAL (2 + 3) HOURS
INTERVAL 90 MINUTES
INTERVAL '1 year 2 months'
TIMESTAMP '2020-01-01 10:00:00.123456'
TIMESTAMPTZ '2020-01-01 10:00:00+02'
TIME '10:11:12'
TIMESTAMPTZ '2020-01-01 10:00:00+02' AT TIME ZONE 'UTC'
TIMESTAMP '2020-01-01' AT TIME ZONE 'UTC'
EXTRACT(year FROM DATE '2020-02-03')
EXTRACT(epoch FROM TIMESTAMP '2020-02-03')
EXTRACT(dow FROM DATE '2020-02-03')
date_part('isodow', DATE '2020-02-02')
date_trunc('week', TIMESTAMP '2020-02-05 10:00:00')
date_diff('month', DATE '2020-01-31', DATE '2020-03-01')
date_sub('month', DATE '2020-01-31', DATE '2020-03-01')
date_add(DATE '2020-01-31', INTERVAL 1 MONTH)
time_bucket(INTERVAL '5 minutes', TIMESTAMP '2020-01-01 00:07:00')
strftime(DATE '2020-02-03', '%d.%m.%Y')
strptime('03.02.2020', '%d.%m.%Y')
epoch_ms(1600000000000)
to_timestamp(1600000000)
make_timestamp(2020, 1, 2, 3, 4, 5.6)
last_day(DATE '2020-02-03')
dayname(DATE '2020-02-03')
make_date(2020, 2, 3)
age(DATE '2020-02-03', DATE '2019-01-01')
CAST('2020-01-01' AS DATE)
'3'::INTEGER + 1
CAST(1.237 AS DECIMAL(10, 2))
TRY_CAST('x' AS INTEGER)
CAST([1, 2] AS VARCHAR[])
CAST({'a': 1} AS STRUCT(a BIGINT))
1::TINYINT
'1,5'::VARCHAR(2)
[1, 2]::INTEGER[2]
CAST(MAP {'a': 1} AS MAP(VARCHAR, BIGINT))
TRY(CAST('x' AS INTEGER))
CAST('a' AS BLOB)
x'AB'::VARCHAR
[1, 2, 3][1]
[1, 2, 3][-1]
[1, 2, 3][1 + 1]
[1, 2, 3][2:3]
[1, 2, 3][:2]
[1, 2, 3, 4][1:4:2]
'hello'[1:2]
{'a': 1, 'b c': 2}['b c']
{'a': {'b': 3}}.a.b
struct_extract({'a': 1}, 'a')
struct_pack(a := 1, b := 'x')
row(1, 'a')
(1, 'a')
(1, 2) = (1, 2)
(1, 2) < (1, 3)
MAP {'a': 1}['a']
MAP(['a'], [1])
map_keys(MAP {'a': 1})
list_transform([1, 2], lambda x, i: x * i)
list_filter([1, 2, 3], lambda x: x > 1)
list_reduce([1, 2, 3], lambda a, b: a + b)
[x + 1 for x in [1, 2, 3] if x > 1]
list_sort([3, 1, 2], 'DESC')
array_to_string([1, NULL, 3], '-')
list_contains([1, 2], 2)
array_position([5, 6], 6)
[1, 2] && [2, 3]
[1, 2] @> [1]
list_aggregate([1, 2], 'sum')
range(3)
range(1, 7, 2)
generate_series(1, 3)
unnest([1])
len([1, 2])
array_length([1, 2], 1)
flatten([[1], [2]])
array_cosine_similarity([1, 2]::FLOAT[2], [2, 1]::FLOAT[2])
list_distance([1.0, 2.0], [2.0, 4.0])
'{"a": [1, 2]}'::JSON -> 'a'
'{"a": [1, 2]}'::JSON -> '$.a[0]'
'{"a": {"b": "x"}}'::JSON ->> '$.a.b'
json_extract_string('{"a": "x"}', '$.a')
json_extract('{"a": [1]}', ['$.a', '$.b'])
json_object('a', 1)
to_json({'a': [1, 2]})
json_array_length('[1, 2]')
json_type('{"a": 1}', '$.a')
CASE WHEN 1 > 2 THEN 'a' ELSE 'b' END
CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END
coalesce(NULL, 2)
ifnull(NULL, 2)
nullif(1, 1)
if(1 > 2, 'a', 'b')
greatest(1, NULL, 3)
least(1, 2)
EXISTS (SELECT 1)
(SELECT max(x) FROM range(3) t(x))
2 = ANY (SELECT 2)
2 > ALL (SELECT 1)
2 = ANY ([1, 2])
2 IN (SELECT 2)
typeof(1.5)
hash('a')
md5('a')
regexp_replace('aXbX', 'X', '-', 'g')
regexp_extract('a12', '(\d)(\d)', 2)
regexp_extract('k=v', '(\w)=(\w)', ['k', 'v'])
regexp_matches('abc', 'B', 'i')
regexp_split_to_array('a1b', '\d')
string_split('a,b', ',')
split_part('a,b', ',', 2)
starts_with('ab', 'a')
contains('ab', 'b')
strpos('abc', 'c')
instr('abc', 'c')
lpad('a', 3, '日')
repeat('ab', 2)
format('{} {:05.1f}', 'a', 1.25)
printf('%d-%s', 1, 'a')
chr(26085)
ascii('A')
unicode('日')
ord('日')
hex('ab')
from_hex('6162')
base64('ab'::BLOB)
from_base64('YWI=')
translate('abc', 'ab', 'xy')
levenshtein('ab', 'ac')
bar(5, 0, 10)
concat('a', NULL, 1)
concat_ws('-', 'a', NULL, 'b')
trim(both 'x' from 'xax')
trim(leading 'x' from 'xax')
trim(trailing 'x' from 'xax')
trim('xax', 'x')
ltrim('xax', 'x')
overlay('abcdef' PLACING 'XY' FROM 2 FOR 3)
round(2.345, 2)
round(1234, -2)
ceil(1.2)
ceiling(1.2)
log(8)
log(2, 8)
log2(8)
log10(100)
ln(2)
pow(2, 3)
mod(7, 3)
sign(-2)
trunc(1.9)
atan2(1, 2)
pi()
gcd(4, 6)
even(3)
isnan('nan'::DOUBLE)
bit_count(7)
factorial(5)
current_schema()
1 AS VALUE
2 END_
"x y".a
