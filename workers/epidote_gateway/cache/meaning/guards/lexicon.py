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
    occur situate available aware along regard accord assistance instruction sorry whether
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
    parcel package
    biggest largest
    bigger larger
    smallest tiniest
    fastest quickest
    faster quicker
    easiest simplest
    easier simpler
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

NEGATIONS = words(
    """
    not never none nobody nothing nowhere neither nor without cannot unless 
     dont cant wont doesnt didnt isnt arent wasnt werent shouldnt couldnt wouldnt
    hasnt havent hadnt aint mustnt no hardly barely scarcely
          
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
    several
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
