"""This file is about English words by what they do to a question's meaning.

Words that are in none of these lists are content: both questions must have them. The lists only
ever allow (a synonym, a filler) or name a reason; a word missing here costs a hit, not a mistake.
"""

from collections.abc import Mapping


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def groups(text: str) -> Mapping[str, str]:
    """Each line's words to the line's first word."""
    lines = [line.split() for line in text.strip().splitlines()]
    return {word: line[0] for line in lines for word in line}


# Say nothing about what is asked.
FILLERS = words(
    """
    still already yet they them he she
    a an the this that these those there here it its is are was were be been being am 's 're
    'm do does did doing done can could would shall will may might ought i me we us you one
    ones of in on at to for from by with as into onto upon and or if then than so but while
    via per what which who whom whose where when why how please kindly hey hi hello ok okay
    thanks thank tell show give let explain describe know knowing learn understand want
    wanted need needed wonder wondering curious ask asking question answer help
    assist advise advice inform locate wanna gonna gotta now current immediately ahead
    get getting got go going have has had having able possible possibly way ways step steps
    manner thing require required requires
    things something anything stuff just really actually basically simply quickly exactly
    currently kind any some about regarding concerning info information detail
    details idea also too very quite well exact find figure 
       come someone somebody anyone sure
    maybe perhaps supposed should must re im id ill ive whats hows
    wheres whos lets yes sir buddy guy guys
    """
)

# Fillers that people put in capitals without naming anything.
GREETINGS = words("ok okay please kindly hey hi hello thanks yes id hows whats whos a i")

# Say little: one question may have them and the other one nothing in their place. They are verbs
# that stand for many, and nouns that only say what kind of thing a name names.
LIGHT = words(
    """
    make come put keep hold happen exist consider become go run bring try check see look
    work process procedure provide offer mean people person film movie song book singer actor
    company city country river mountain planet language team game app website brand product
    item food drink person place word example common own
    occur situate available aware regard accord assistance instruction sorry whether
    """
)

# Everyday words that stand for each other in a question.
SYNONYMS = groups(
    """
    buy purchase purchasing bought
    fix repair mend
    begin start commence
    end finish
    big large
    small little tiny
    quick fast rapid rapidly speedy
    phone telephone cellphone smartphone
    car automobile auto
    film movie
    physician doctor
    lawyer attorney
    photo picture photograph pic image
    delete remove erase
    change modify alter
    create build generate
    choose select pick
    shut close
    buddy friend
    job occupation
    difficult hard
    easy simple
    correct right
    incorrect wrong
    error mistake
    issue problem trouble
    cost price
    child kid children kids
    home house
    city town
    nation country
    illness disease sickness
    sick ill
    receive obtain
    search seek
    reach arrive
    make produce
    require necessary
    allow permit
    forbid prohibit ban
    assist aid
    quit resign
    reply respond
    speak talk
    gift present
    trash garbage rubbish
    lift elevator
    calculate compute
    determine establish
    display screen
    folder directory
    argument parameter
    ideal best
    happy glad
    discount rebate
    refund reimbursement reimburse
    cancel terminate
    register signup enroll
    login signin
    logout signout
    password passphrase passcode
    invoice bill
    ship deliver shipping delivery
    ticket fare
    reservation booking
    book reserve
    store shop
    clothes clothing garment
    author writer
    write compose
    invent devise
    discover discovery
    found founded founder establish
    weigh weight
    number amount count
    population inhabitant
    die death
    marry marriage wed
    remain stay
    reside live
    function work
    cause reason
    effect consequence
    symptom sign
    medicine medication drug
    treat treatment
    grow cultivate
    clean wash
    cook prepare
    boil simmer
    safe safely secure
    main primary
    usual usually typical typically normal normally
    total sum
    whole entire
    connect connection
    install setup
    pay payment
    move relocate
    usa US
    travel journey trip
    """
)

# Plurals and past forms that no rule finds.
IRREGULAR = groups(
    """
    do does did doing done
    have has had having
    buy bought
    sell sold
    write wrote written
    build built
    send sent
    lose lost
    pay paid
    man men
    woman women
    foot feet
    tooth teeth
    mouse mice
    take took taken
    make made
    give gave given
    speak spoke spoken
    eat ate eaten
    drive drove driven
    fly flew flown
    win won
    begin began begun
    find found
    keep kept
    leave left
    sleep slept
    teach taught
    think thought
    bring brought
    grow grew grown
    break broke broken
    choose chose chosen
    steal stole stolen
    die died dying
    cost costs costing
    leaf leaves
    knife knives
    life lives
    wife wives
    spend spent
    tell told
    meet met
    feel felt
    hear heard
    hold held
    run ran
    see saw seen
    know knew known
    come came
    lend lent
    forget forgot forgotten
    say said
    draw drew drawn
    hide hid hidden
    bite bit bitten
    ride rode ridden
    rise rose risen
    fall fell fallen
    throw threw thrown
    drink drank drunk
    catch caught
    fight fought
    seek sought
    freeze froze frozen
    beat beaten
    become became
    show shown
    lead led
    feed fed
    deal dealt
    lie lying
    use used using
    """
)

IRREGULAR_PAST = words(
    """
    bought sold wrote built sent lost paid took made gave spoke ate drove flew won began
    found kept left slept taught thought brought grew broke chose stole died held came went
    built seen saw done been gone given taken written driven eaten worn known knew shown sang sung
    met led fed spent heard lent forgot drew bitten rode rose fell thrown threw drank froze read
    beat beaten become became said told felt dealt meant fought caught hidden hid
    """
)

PHRASES: tuple[tuple[str, str], ...] = (
    (r"\bi(?:'d| would) like (?:to )?|\bi wish (?:to )?", ""),
    (r"\bcheck (?:if|whether)\b", ""),
    (r"\b(?:serve|serves|served|work|works|worked|act|acts|acted) as\b", ""),
    (r"\bhow (?:big|large)(?: an?)?\b", "what size"),
    (r"\bhow tall\b|\bhow high\b", "what height"),
    (r"\bhow old\b", "what age"),
    (r"\bhow far\b", "what distance"),
    (r"\bhow deep\b", "what depth"),
    (r"\bhow heavy\b", "what weight"),
    (r"\b(kind|sort|type)s? of\b", ""),
    (r"\bwhat does (.{1,60}?) mean\b", r"what is the meaning of \1"),
    (r"\bwhat's\b", "what is"),
    (r"\bbest (?=ways?\b|method\b)", ""),
    (r"\bwhat is the (?:way|method|process|procedure) (?:to|of|for)\b", "how"),
    (r"(?:^|(?<=[.,!?] ))(?:can|could|would|will) you (?:please |kindly )?", ""),
    (r"\bi (?:do not|don't|dont) (?:know|understand|remember|get) (?=how|what|why|wh|if)", ""),
    (r"\b(?:do you (?:happen to )?know|any idea|would you say|do you think|tell me if)\b", ""),
    (r"(?:^|(?<=[.,!?] ))(?:please )?(?:tell|show|give|teach|help) (?:me|us)\b", ""),
    (r"\b(?:i|we)(?:'d| would)? (?:want|need|like) you to\b|\bfor you to\b", ""),
    (r"\b(?:whether|if) or not\b", "whether"),
    (r"^define\b", "what is the meaning of"),
    (r"\b(?:i|we) (?:want|need) to know\b|\blet (?:me|us) know\b|\bthank you\b", ""),
    (r"\bhow come\b", "why"),
    (r"^what makes (?=the |my |your |our |this |these )", "why is "),
    (r"\b(?:unable|not able) to\b", "cannot"),
    (
        r"\bhow many (?:minutes|hours|days|weeks|months) (?=(?:does|do|did|will) .{1,60}? take)",
        "how long ",
    ),
    (r"\bwhat (does|do|did|will|would) (.{1,60}?) cost\b", r"what price \1 \2"),
    (r"^do you (?:offer|provide|sell)\b", "do you have"),
    (r"\bfor what reason\b|\bwhat is the (?:reason|cause) (?:why|that|of|for|behind)\b", "why"),
    (r"\b(?:at )?what time\b", "when"),
    (r"\b(?:in|on|at) (?:what|which) (?:year|month|day|date)\b", "when"),
    (r"\bhow much time\b", "how long"),
    (r"\bhow long (does|do|did|will|would) it take (?:me )?to\b", r"how long \1 to"),
    (r"^time to\b", "how long to"),
    (r"\bhow long (does|do|did|will|would) (.{1,60}?) (?:take|last)\b", r"how long \1 \2"),
    (r"\bwhat is the number of\b|\bthe number of\b", "how many"),
    (r"\bhow much (does|do|did|will|would) (.{1,60}?) cost\b", r"what price \1 \2"),
    (r"\bhow much (is|are)\b(?! \d)", r"what price \1"),
    (r"\bin (?:what|which) (?:place|location)\b", "where"),
    (r"\bwhich person\b|\bwhat person\b", "who"),
    (r"\b(?:sign|signed|signing) up\b", "register"),
    (r"\b(?:log|sign)(?:ged|ging|ing|ed)? (?:in|into)\b", "login"),
    (r"\b(?:log|sign)(?:ged|ging|ing|ed)? out\b", "logout"),
    (r"\b(?:get|getting|got) rid of\b", "remove"),
    (r"\b(?:look|looking|search|searching) for\b", "find"),
    (r"\b(?:find|figur|work)(?:e|ing)? out\b", "find"),
    (r"\bset(?:ting)? up\b", "install"),
    (r"\b(?:more|anything|something) about\b", "about"),
    (r"\b(?:a lot of|lots of)\b", "many"),
    (r"\be-mail\b", "email"),
    (r"\bunited states(?: of america)?\b|\bu\.s\.(?:a\.)?|\bthe us\b", "usa"),
    (r"\bunited kingdom\b|\bu\.k\.", "uk"),
)  # read in this order, in lower case

NEGATIONS = words(
    """
    not never none nobody nothing nowhere neither nor without cannot unless 
     dont cant wont doesnt didnt isnt arent wasnt werent shouldnt couldnt wouldnt
    hasnt havent hadnt aint mustnt no 
          
    """
)

# Turn a question round as well as any `not`, and say more than it.
NEGATING_VERBS = words("fail refuse avoid stop prevent lack unable unsuccessful")

# The question is about words: none stands for another one then.
ABOUT_WORDS = words(
    """
    spell spelled spelt spelling plural singular rhyme rhymes synonym synonyms antonym antonyms
    opposite pronounce pronounced tense syllable syllables grammar translate translation conjugate
    word words letter letters verb noun adjective rewrite rephrase paraphrase proofread
    """
)

# A verb goes one way or the other by these alone.
PARTICLES = frozenset({"off", "out", "down", "away", "up", "back", "over"})

OPPOSITES = groups(
    """
    from to
    before after
    above below
    over under
    inside outside
    since until
    for against
    """
)

QUANTIFIERS = groups(
    """
    all every each everyone everybody everything always entire whole
    most majority mostly
    few seldom rarely
    only solely exclusively merely
    more greater
    less fewer lower
    both
    either
    except besides excluding unless apart aside
    including include includes included plus
    minimum min least
    maximum max
    first
    last latest
    next
    previous former
    best
    worst
    almost nearly
    never
    half
    another other others different
    again
    together
    alone
    """
)

POSSESSIVES = groups(
    """
    my mine our ours
    your yours
    his
    her hers
    their theirs
    """
)

# What a verb and its nouns and adjectives may end in after a common stem.
FORMS = words("e ion ation ition able ible or er ment ance ence ly ing") | {""}

# Reasons only: these pairs differ as content anyway.
ANTONYMS = (
    "enable disable,increase decrease,raise lower,open close,start stop,buy sell,lock unlock,"
    "good bad,hot cold,fast slow,accept reject,allow forbid,include exclude,win lose,pass fail,"
    "safe dangerous,legal illegal,true false,add remove,gain lose,encrypt decrypt,import export,"
    "upload download,show hide,expand collapse,cheap expensive,high low,early late,arrive depart,"
    "rise fall,push pull,lend borrow,attach detach,approve deny,alive dead,love hate,up down"
)
OPPOSITE_WORDS = frozenset(frozenset(pair.split()) for pair in ANTONYMS.split(","))
OPPOSING_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "de", "mis", "anti")
